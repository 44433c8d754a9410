"""What every other folder stands on: errors, files, settings, results, the outputs store."""
