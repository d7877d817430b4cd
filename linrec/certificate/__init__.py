"""Rigorous bounds on the errors of one run."""

from linrec.certificate.certify import Certificate as Certificate
from linrec.certificate.certify import certify as certify
