"""Results as Markdown and as a picture: what the files in bench/results say."""
