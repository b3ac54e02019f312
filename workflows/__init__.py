"""What happens to a study: rules, completion, the stages of a job as Celery tasks, delivery."""
