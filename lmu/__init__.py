"""The Legendre Memory Unit, trained in parallel and run step by step."""
