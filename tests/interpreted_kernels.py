"""Errors of the kernels for CUDA on a CPU, where Triton's interpreter runs them: a line of JSON.

    TRITON_INTERPRET=1 python tests/interpreted_kernels.py float32 '{"size": [5, 7], "window": 3}'

The variable has to be there before Triton is imported, so tests run this in a process of its own.
"""

import json
import sys

import torch

from mmvitbackbones.running.kernel_check import cases, errors


def main():
    dtype, options = getattr(torch, sys.argv[1]), json.loads(sys.argv[2])
    torch.manual_seed(0)
    found = {
        case.name: errors(case, dtype) for case in cases(device=torch.device('cpu'), **options)
    }
    print(json.dumps(found))


if __name__ == '__main__':
    main()
