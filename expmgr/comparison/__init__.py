"""Is one variant better, and does the question make sense?"""
