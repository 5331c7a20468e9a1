"""Sources that run inside a sandbox, beside the tests of a repository; Python 3.7 understands them."""
