"""Preferences to win rates, win rates to comparisons, comparisons to words.

Pure numpy and scipy: numbers in, numbers or sentences out.
"""
