"""Run one piece of work over many units, in this process or in others. Executors know nothing of images."""
