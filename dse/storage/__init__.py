"""What a search remembers: study, trials, run folder."""
