"""Figures of the chapters, drawn so that they can be read at 700 pixels, in grey and by colour-blind readers."""
