# SPDX-License-Identifier: Apache-2.0
"""What can be wrong with a model, its checkpoint or its licence."""


class ModelError(ValueError):
    """A model, encoder or checkpoint that cannot be used; the message says what to do instead."""


class CheckpointError(ModelError):
    """A checkpoint file that is missing, damaged, or not of the model that was asked for."""


class LicenceError(ModelError):
    """Weights whose licence forbids commercial use and was not accepted."""
