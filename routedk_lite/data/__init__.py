"""Sessions and bundles, the text a model reads and writes about them, and how good an answer is."""
