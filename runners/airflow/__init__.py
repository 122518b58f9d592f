"""Airflow's folder of DAGs for continuous training; it is read by Airflow in an environment of its own."""
