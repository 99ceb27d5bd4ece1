"""What a model computes, as a signature."""
