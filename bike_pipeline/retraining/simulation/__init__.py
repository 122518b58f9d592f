"""The time machine: the embedded years week by week, and what each policy of retraining would have made of them."""
