"""For the tests of rewards: a server that scores by what it reads, and that fails in every way."""
