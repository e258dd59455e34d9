"""One run: what was asked, the plan, the fits, the work, the summary at its end."""
