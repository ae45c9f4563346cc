# SPDX-License-Identifier: Apache-2.0
"""Fine-tuning: a network learns from what a robot's own depth sensor says. `depth_finetune` is the command.

Data (`samples`, `folders`, `bags`, `data`) becomes batches (`draws`, `augment`); `start` makes the network fit to be trained;
`trainer` trains it by `losses` and `optimise`; `validation` and `record` say how good it has become.
"""
