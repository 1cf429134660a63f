"""Images and masks: pictures that say the class of each pixel."""
