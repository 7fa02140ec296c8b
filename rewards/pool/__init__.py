"""Worker processes that call rewards and can be killed."""
