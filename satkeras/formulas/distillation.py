"""Distillation (Hinton et al. 2015, arXiv:1503.02531): a student learns from the softened answers of a teacher."""

import tensorflow as tf


def soft_cross_entropy(teacher_logits, student_logits, temperature):
    """`T^2 * -sum_i p_i log q_i` with `p = softmax(teacher / T)` and `q = softmax(student / T)`, for every example.

    The gradient of a cross entropy at temperature T falls as 1 / T^2; the factor lets it weigh as much at every T,
    beside a loss of the labels (section 2). No gradient goes to the teacher.

    Args:
      teacher_logits: float tensor (..., classes).
      student_logits: float tensor of the same shape.
      temperature: T, positive; the answers are the softer, the higher it is.

    Returns:
      float32 tensor (...).
    """
    teacher = tf.stop_gradient(tf.cast(teacher_logits, tf.float32)) / temperature
    student = tf.cast(student_logits, tf.float32) / temperature
    return temperature**2 * tf.nn.softmax_cross_entropy_with_logits(tf.nn.softmax(teacher), student)
