"""What runs inside Transform, Trainer and Evaluator."""
