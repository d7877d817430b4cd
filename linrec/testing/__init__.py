"""What it takes to be sure: a reference, and bounds for what differs from it."""

from linrec.testing.bounds import error_bound as error_bound
from linrec.testing.reference import reference as reference
