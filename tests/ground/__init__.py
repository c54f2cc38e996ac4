"""What stands under `./test` and `./demo`: environments, models, parts. Standard library only, but for `convert`."""
