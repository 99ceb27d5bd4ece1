"""Rows and batches for training and evaluation."""
