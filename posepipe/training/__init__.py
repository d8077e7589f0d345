"""Training: images synthesised on the fly, pose sampling, schedules and loops."""
