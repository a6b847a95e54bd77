"""What an explanation looks like: values in, pictures out."""
