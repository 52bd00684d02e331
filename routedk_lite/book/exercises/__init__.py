"""Checkers of the chapters' exercises."""
