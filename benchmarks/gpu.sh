#!/bin/sh
# Everything that a GPU has to show, in parts of at most ten minutes each:
#   sh benchmarks/gpu.sh DATA check|teachers|cifar10|cifar100|scale
# DATA holds the datasets; results go to benchmarks/results, teachers' weights to benchmarks/trained.
set -eu
data=$1
part=$2
cd "$(dirname "$0")/.."
case $part in
check)
    python -m pytest -q -m gpu tests/distill
    python -m benchmarks.gpu check --data "$data" --device cuda
    python -m benchmarks.gpu speed --data "$data" --device cuda --steps 50 --rounds 5
    ;;
teachers)
    # As many epochs as four minutes allow; the accuracy reached is in the result file.
    python -m benchmarks.train_teachers resnet34_cifar10 --data "$data" --device cuda --seconds 230
    python -m benchmarks.train_teachers resnet34_cifar100 --data "$data" --device cuda --seconds 230
    ;;
cifar10 | cifar100)
    suite=$part-resnet34-resnet18
    python -m benchmarks.gpu speed --data "$data" --device cuda --suite "$suite" --steps 50 --rounds 3 --no-write
    python -m benchmarks.distill "$suite" --data "$data" --device cuda --seconds 480 --curve 60
    ;;
scale)
    python -m benchmarks.scale --data "$data" --device cuda --suite cifar10-resnet20 --method fast --steps 20
    ;;
*)
    echo "unknown part: $part" >&2
    exit 2
    ;;
esac
