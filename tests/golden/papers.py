"""The losses again, in float64 NumPy, written from the papers and not from raydistill.

Plain loops where a formula has indices. Only analytic functions of the student (no abs, no maximum, norms as roots of
sums of squares), so that a complex student gives its derivative to full precision: see `complex_step`.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

Array = np.ndarray


def complex_step(function: Callable[[Array], complex], point: Array) -> Array:
    """Gradient: Im f(x + ih) / h. Nothing is subtracted, so h can be far below rounding and the error is none."""
    gradient = np.zeros_like(point)
    for index in np.ndindex(point.shape):
        moved = point.astype(np.complex128)
        moved[index] += 1e-30j
        gradient[index] = function(moved).imag / 1e-30
    return gradient


def softmax(logits: Array) -> Array:
    exponents = np.exp(logits)
    return exponents / exponents.sum(axis=-1, keepdims=True)


def sigmoid(logits: Array) -> Array:
    return 1 / (1 + np.exp(-logits))


def kl(p: Array, q: Array) -> complex:
    return (p * (np.log(p) - np.log(q))).sum()


# --- Soft losses ---------------------------------------------------------------------------------------------------


def forward_kl(student: Array, teacher: Array, temperature: float) -> complex:
    """Hinton et al. (2015), section 2."""
    return temperature**2 * kl(softmax(teacher / temperature), softmax(student / temperature))


def reverse_kl(student: Array, teacher: Array, temperature: float) -> complex:
    """Gu et al. (2024), section 2.1."""
    return temperature**2 * kl(softmax(student / temperature), softmax(teacher / temperature))


def jensen_shannon(student: Array, teacher: Array, temperature: float) -> complex:
    """Lin (1991), section IV: the entropy of the mean less the mean of the entropies."""
    p, q = softmax(teacher / temperature), softmax(student / temperature)

    def entropy(r: Array) -> complex:
        return -(r * np.log(r)).sum()

    return temperature**2 * (entropy((p + q) / 2) - entropy(p) / 2 - entropy(q) / 2)


def skew_kl(student: Array, teacher: Array, temperature: float, skew: float) -> complex:
    """Ko et al. (2024), section 3.1."""
    p, q = softmax(teacher / temperature), softmax(student / temperature)
    return temperature**2 * kl(p, skew * p + (1 - skew) * q)


def tckd(student: Array, teacher: Array, temperature: float, targets: Array) -> list[complex]:
    """Zhao et al. (2022), section 3.1: the binary part, by row, without T²."""
    p, q = softmax(teacher / temperature), softmax(student / temperature)
    return [
        kl(np.array([p[i, t], 1 - p[i, t]]), np.array([q[i, t], 1 - q[i, t]])) for i, t in enumerate(targets.tolist())
    ]


def nckd(student: Array, teacher: Array, temperature: float, targets: Array) -> list[complex]:
    """The other part, by row, without T²: probabilities renormalised over the classes that are not the target."""
    p, q = softmax(teacher / temperature), softmax(student / temperature)
    parts = []
    for i, t in enumerate(targets.tolist()):
        others = [c for c in range(p.shape[1]) if c != t]
        parts.append(kl(p[i, others] / (1 - p[i, t]), q[i, others] / (1 - q[i, t])))
    return parts


def targets_of(teacher: Array, hard_labels: Array) -> Array:
    return np.where(hard_labels >= 0, hard_labels, teacher.argmax(axis=1))


def dkd(student: Array, teacher: Array, temperature: float, hard_labels: Array, alpha: float, beta: float) -> complex:
    targets = targets_of(teacher, hard_labels)
    target_part = sum(tckd(student, teacher, temperature, targets))
    other_part = sum(nckd(student, teacher, temperature, targets))
    return temperature**2 * (alpha * target_part + beta * other_part)


def nkd(student: Array, teacher: Array, temperature: float, hard_labels: Array, gamma: float) -> complex:
    """Yang et al. (2023): the target at temperature 1, the others normalised at temperature λ and scaled by λ²."""
    total = 0.0
    for i, t in enumerate(targets_of(teacher, hard_labels).tolist()):
        total = total - softmax(teacher[i])[t] * np.log(softmax(student[i])[t])
        others = [c for c in range(teacher.shape[1]) if c != t]
        p, q = softmax(teacher[i, others] / temperature), softmax(student[i, others] / temperature)
        total = total - gamma * temperature**2 * (p * np.log(q)).sum()
    return total


def correlation(x: Array, y: Array) -> complex:
    """Pearson's, of two vectors: the covariance over the root of the product of the variances."""
    n = len(x)
    covariance = (x * y).sum() / n - x.sum() / n * y.sum() / n
    variances = ((x * x).sum() / n - (x.sum() / n) ** 2) * ((y * y).sum() / n - (y.sum() / n) ** 2)
    return covariance / np.sqrt(variances)


def dist(student: Array, teacher: Array, temperature: float, beta: float, gamma: float) -> complex:
    """Huang et al. (2022), section 4: 1 − mean correlation along the rows and along the columns; times the batch."""
    p, q = softmax(teacher / temperature), softmax(student / temperature)
    batch, classes = p.shape
    inter = 1 - sum(correlation(q[i], p[i]) for i in range(batch)) / batch
    intra = 1 - sum(correlation(q[:, j], p[:, j]) for j in range(classes)) / classes
    return batch * (beta * inter + gamma * intra)


def dist_known(student: Array, teacher: Array, temperature: float, unknown: Array) -> float:
    """`dist`, β = γ = 1, where classes are unknown: a relation that has no spread on either side counts as kept."""

    def distance(x: Array, y: Array) -> float:
        flat = len(x) < 2
        return 0.0 if flat else 1 - correlation(x, y)

    p, q = np.zeros_like(teacher), np.zeros_like(student)
    for i, row in enumerate(~unknown):
        if row.any():
            p[i, row], q[i, row] = softmax(teacher[i, row] / temperature), softmax(student[i, row] / temperature)
    inter = sum(distance(q[i, row], p[i, row]) for i, row in enumerate(~unknown))
    columns = [(j, column) for j, column in enumerate((~unknown).T) if column.any()]
    intra = sum(distance(q[column, j], p[column, j]) for j, column in columns) / len(columns)
    return inter + len(teacher) * intra


def standardize_known(logits: Array, unknown: Array) -> Array:
    scores = logits.copy()
    for i, row in enumerate(~unknown):
        if row.sum() > 1:
            scores[i, row] = standardize(logits[i : i + 1, row])[0]
    return scores


def mse(student: Array, teacher: Array, temperature: float) -> complex:
    """Kim et al. (2021), as a mean over classes."""
    return ((student - teacher) ** 2).mean(axis=1).sum()


def standardize(logits: Array) -> Array:
    """Sun et al. (2024): (x − mean) / standard deviation of the population."""
    mean = logits.sum(axis=1, keepdims=True) / logits.shape[1]
    variance = ((logits - mean) ** 2).sum(axis=1, keepdims=True) / logits.shape[1]
    return (logits - mean) / np.sqrt(variance)


def soft_binary(student: Array, teacher: Array, temperature: float) -> complex:
    """Each label is a softmax over (z, 0)."""
    total = 0.0
    for i, j in np.ndindex(teacher.shape):
        two_student, two_teacher = np.array([student[i, j], 0]), np.array([teacher[i, j], 0])
        total = total + forward_kl(two_student, two_teacher, temperature) / teacher.shape[1]
    return total


def hard_binary(student: Array, labels: Array) -> complex:
    each = -(labels * np.log(sigmoid(student)) + (1 - labels) * np.log(1 - sigmoid(student)))
    return each.mean(axis=1).sum()


def regression(student: Array, wanted: Array) -> complex:
    return ((student - wanted) ** 2).mean(axis=1).sum() / 2


# --- Gradients by hand ---------------------------------------------------------------------------------------------


def through_softmax(q: Array, slope: Array, temperature: float) -> Array:
    """Gradient with respect to logits of T² · f(q) with ∂f/∂q = slope: ∂q_c/∂z_k = q_c (δ_ck − q_k) / T."""
    return temperature * q * (slope - (q * slope).sum(axis=-1, keepdims=True))


def forward_kl_gradient(student: Array, teacher: Array, temperature: float) -> Array:
    return temperature * (softmax(student / temperature) - softmax(teacher / temperature))


def reverse_kl_gradient(student: Array, teacher: Array, temperature: float) -> Array:
    p, q = softmax(teacher / temperature), softmax(student / temperature)
    return through_softmax(q, np.log(q / p) + 1, temperature)


def jensen_shannon_gradient(student: Array, teacher: Array, temperature: float) -> Array:
    p, q = softmax(teacher / temperature), softmax(student / temperature)
    return through_softmax(q, np.log(2 * q / (p + q)) / 2, temperature)


def skew_kl_gradient(student: Array, teacher: Array, temperature: float, skew: float) -> Array:
    p, q = softmax(teacher / temperature), softmax(student / temperature)
    return through_softmax(q, -(1 - skew) * p / (skew * p + (1 - skew) * q), temperature)


def mse_gradient(student: Array, teacher: Array, temperature: float) -> Array:
    return 2 * (student - teacher) / student.shape[1]


def soft_binary_gradient(student: Array, teacher: Array, temperature: float) -> Array:
    return temperature * (sigmoid(student / temperature) - sigmoid(teacher / temperature)) / student.shape[1]


def hard_binary_gradient(student: Array, labels: Array) -> Array:
    return (sigmoid(student) - labels) / student.shape[1]


def regression_gradient(student: Array, wanted: Array) -> Array:
    return (student - wanted) / student.shape[1]


# --- Feature losses ------------------------------------------------------------------------------------------------


def norm(vector: Array) -> complex:
    return np.sqrt((vector * vector).sum())


def huber(x: complex, y: complex) -> complex:
    difference = x - y
    if abs(difference.real) <= 1:
        return difference * difference / 2
    return difference * np.sign(difference.real) - 0.5


def hint(student: Array, teacher: Array) -> complex:
    """Romero et al. (2015), equation 3, as a mean over channels."""
    return ((student - teacher) ** 2).mean(axis=1).sum()


def hint_gradient(student: Array, teacher: Array) -> Array:
    return 2 * (student - teacher) / student.shape[1]


def attention_transfer(student: Array, teacher: Array) -> complex:
    """Zagoruyko and Komodakis (2017), equation 2 with F²_sum; the distance squared."""
    total = 0.0
    for i in range(len(student)):
        q_student, q_teacher = (student[i] ** 2).sum(axis=1), (teacher[i] ** 2).sum(axis=1)
        difference = q_student / norm(q_student) - q_teacher / norm(q_teacher)
        total = total + (difference * difference).sum()
    return total


def rkd_distance(student: Array, teacher: Array) -> complex:
    """Park et al. (2019), section 3.2.1: over ordered pairs of different rows, as a mean; times the batch."""
    batch = len(student)
    pairs = [(i, j) for i in range(batch) for j in range(batch) if i != j]

    def relations(points: Array) -> list[complex]:
        distances = [norm(points[i] - points[j]) for i, j in pairs]
        mean = sum(distances) / len(pairs)
        return [distance / mean for distance in distances]

    each = [huber(s, t) for s, t in zip(relations(student), relations(teacher), strict=True)]
    return batch * sum(each) / len(pairs)


def rkd_angle(student: Array, teacher: Array) -> complex:
    """Park et al. (2019), section 3.2.2: over ordered triples of different rows, as a mean; times the batch."""
    batch = len(student)
    triples = [(i, j, k) for i in range(batch) for j in range(batch) for k in range(batch) if len({i, j, k}) == 3]

    def angle(points: Array, i: int, j: int, k: int) -> complex:
        to_i, to_k = points[i] - points[j], points[k] - points[j]
        return (to_i * to_k).sum() / (norm(to_i) * norm(to_k))

    return batch * sum(huber(angle(student, *three), angle(teacher, *three)) for three in triples) / len(triples)


def similarity_preserving(student: Array, teacher: Array) -> complex:
    """Tung and Mori (2019), section 3.1; times the batch."""
    batch = len(student)

    def similarities(features: Array) -> Array:
        products = np.array([[(a * b).sum() for b in features] for a in features])
        return np.array([row / norm(row) for row in products])

    difference = similarities(teacher) - similarities(student)
    return batch * (difference * difference).sum() / batch**2


def cka(student: Array, teacher: Array) -> complex:
    """Kornblith et al. (2019), section 3, by HSIC of the kernels; times the batch."""
    batch = len(student)
    centring = np.eye(batch) - np.ones((batch, batch)) / batch

    def hsic(k: Array, m: Array) -> complex:
        return np.trace(k @ centring @ m @ centring) / (batch - 1) ** 2

    k, m = student @ student.T, teacher @ teacher.T
    return batch * (1 - hsic(k, m) / np.sqrt(hsic(k, k) * hsic(m, m)))


def contrastive(student: Array, teacher: Array, temperature: float) -> complex:
    """Oord et al. (2018), equation 4, with each side once the anchor, as in Tian et al. (2020)."""
    total = 0.0
    for i in range(len(student)):

        def score(j: int, k: int) -> complex:
            return np.exp((student[j] * teacher[k]).sum() / (norm(student[j]) * norm(teacher[k])) / temperature)

        own = score(i, i)
        total = total - np.log(own / sum(score(i, j) for j in range(len(student)))) / 2
        total = total - np.log(own / sum(score(j, i) for j in range(len(student)))) / 2
    return total
