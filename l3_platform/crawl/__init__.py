"""Where raw pages come from, and the reading of WARC and ARC files."""
