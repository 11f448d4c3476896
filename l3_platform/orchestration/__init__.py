"""The only subpackage that knows Dagster: resources, the stage asset, cards, checks, services."""

import warnings

import dagster as dg

warnings.filterwarnings("ignore", category=dg.BetaWarning)  # `backfill_policy`: used on purpose, pinned in constraints.txt
