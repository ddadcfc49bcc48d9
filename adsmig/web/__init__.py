"""The console: jobs in a browser.  It moves no data itself, and no job needs it."""
