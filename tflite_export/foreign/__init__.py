"""Files that another tool wrote, rewritten so that runtimes agree on them."""
