"""Files: dataset folders, images, sets of other programs, models, on any store."""
