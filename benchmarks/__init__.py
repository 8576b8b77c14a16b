"""Every figure that README and docs print, as commands."""
