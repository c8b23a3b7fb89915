"""What is lost by keeping the k largest logits of a row and the level of the rest.

Made-up logits that look like those of a real classifier. Classes come in families of ten; a class is a direction close
to its family's. A sample is a mixture of its class and a sibling, the class's share uniform between 0.3 and 1: some are
clear, some could be either, some look like the other one. Noise is added, and its logits are the products with all
classes' directions, times a scale. So the right class stands out, a sibling or two follow, and the thousands of others
lie in a bell round zero, two logits wide. The student sees the same samples through more noise.

Prints, for each temperature and k, means over all rows, in float64:
- KL(dense || top-k), in nats: how far the teacher's word is from what it was;
- KL(teacher || student), in nats, for the dense and for the kept teacher: the loss that the student is given;
- the mass of the k largest classes: what is kept exactly at T = 1.

    python benchmarks/top_k_error.py [--rows 2000] [--seed 0]
"""

from __future__ import annotations

import argparse

import numpy as np

from raydistill.soft_labels.encoding import Encoding

TEMPERATURES, KEPT = (1, 2, 4, 8), (8, 16, 32, 64, 128)
WIDTH, FAMILY = 256, 10
CLOSENESS, SHARE, SCALE = 0.6, (0.3, 1.0), 18.0
TEACHER_NOISE, STUDENT_NOISE = 2.0, 2.0  # deviation of a logit


def made_up(num_rows: int, num_classes: int, generator: np.random.Generator) -> tuple[np.ndarray, ...]:
    """The teacher's logits, float16 [num_rows, num_classes], the student's, and the right classes."""
    families = generator.normal(size=(num_classes // FAMILY, WIDTH))
    own = generator.normal(size=(num_classes, WIDTH))
    directions = CLOSENESS * np.repeat(families, FAMILY, axis=0) + (1 - CLOSENESS**2) ** 0.5 * own
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    right = generator.integers(0, num_classes, num_rows)
    sibling = right // FAMILY * FAMILY + (right + generator.integers(1, FAMILY, num_rows)) % FAMILY
    share = generator.uniform(*SHARE, (num_rows, 1))
    clear = share * directions[right] + (1 - share) * directions[sibling]
    seen = clear + generator.normal(0, TEACHER_NOISE / SCALE, (num_rows, WIDTH))
    blurred = seen + generator.normal(0, STUDENT_NOISE / SCALE, (num_rows, WIDTH))
    return (SCALE * seen @ directions.T).astype(np.float16), SCALE * blurred @ directions.T, right


def log_softmax(logits: np.ndarray, temperature: float) -> np.ndarray:
    wide = logits.astype(np.float64) / temperature
    wide -= wide.max(axis=1, keepdims=True)
    return wide - np.log(np.exp(wide).sum(axis=1, keepdims=True))


def kl(log_p: np.ndarray, log_q: np.ndarray) -> float:
    return float((np.exp(log_p) * (log_p - log_q)).sum(axis=1).mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=2_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    print(f"numpy {np.__version__}; {options.rows:,} rows, seed {options.seed}; what the logits are: see the script")
    for num_classes in (1_000, 10_000):
        generator = np.random.default_rng(options.seed)
        teacher, student, right = made_up(options.rows, num_classes, generator)
        dense = {t: log_softmax(teacher, t) for t in TEMPERATURES}
        asked = {t: log_softmax(student, t) for t in TEMPERATURES}
        print(
            f"\n{num_classes:,} classes: teacher right {np.mean(teacher.argmax(1) == right):.2f}, student "
            f"{np.mean(student.argmax(1) == right):.2f}; the teacher's largest probability "
            f"{np.exp(dense[1]).max(1).mean():.2f}, largest logit {teacher.max(1).mean():.1f}, spread of all logits "
            f"{teacher.astype(np.float64).std():.1f}"
        )
        kept = {}
        for k in KEPT:
            encoding = Encoding(num_classes, k)
            logits = encoding.decode(encoding.encode(teacher))
            kept[k] = {t: log_softmax(logits, t) for t in TEMPERATURES}
        header = "".join(f"{f'T = {t}':>10}" for t in TEMPERATURES)
        print(f"{'KL(dense || top-k)':24}{header}")
        for k in KEPT:
            print(f"  k = {k:<18}" + "".join(f"{kl(dense[t], kept[k][t]):10.2g}" for t in TEMPERATURES))
        print(f"{'KL(teacher || student)':24}{header}")
        print(f"  {'dense':<22}" + "".join(f"{kl(dense[t], asked[t]):10.3f}" for t in TEMPERATURES))
        for k in KEPT:
            print(f"  k = {k:<18}" + "".join(f"{kl(kept[k][t], asked[t]):10.3f}" for t in TEMPERATURES))
        print(f"{'mass of the k largest':24}{header}")
        masses = {t: np.cumsum(-np.sort(-np.exp(dense[t]), axis=1), axis=1).mean(axis=0) for t in TEMPERATURES}
        for k in KEPT:
            print(f"  k = {k:<18}" + "".join(f"{masses[t][k - 1]:10.3f}" for t in TEMPERATURES))


if __name__ == "__main__":
    main()
