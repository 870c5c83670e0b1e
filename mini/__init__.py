"""The mini family: a toy world of animated emoji, its training stages and its evaluation. Not part of the node pack."""
