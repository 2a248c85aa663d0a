"""Column work: writes out an operation digit by digit, as the model is to think it. Knows no language and no question.

Every written step is true and needs one look at a digit or two: a column's sum with its carry (`7+6+0=13`), a column's
difference with its borrow as the leading digit (`13-8-0=5`), a column's product with its carry (`7*6+0=42`).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random
from typing import NamedTuple


class Operation(NamedTuple):
    """One operation on two non-negative integers; `sign` is one of + - * / or ? (a comparison)."""

    sign: str
    left: int
    right: int


@dataclass(slots=True)
class Work:
    """The thinking as it is written: lines, and every operation worked out in them."""

    random: Random  # only for wrong guesses of quotient digits
    wrong_guess_share: float = 0.0
    lines: list[str] = field(default_factory=list)
    operations: list[Operation] = field(default_factory=list)

    def text(self) -> str:
        """The thinking, a newline after each line."""
        return "\n".join(self.lines) + "\n"

    # -- signed operations: what an expression needs --------------------------------------------------------------

    def add(self, a: int, b: int) -> int:
        """a + b of any signs; ends with the line `=result`."""
        if a >= 0 and b >= 0:
            return self.add_columns(a, b)
        if a < 0 and b < 0:
            self.lines.append(f"-({-a}+{-b})")
            return self._negated(self.add_columns(-a, -b))
        a, b = (b, -a) if a < 0 else (a, -b)  # -3+5 is 5-3, 5+(-3) is 5-3
        self.lines.append(f"{a}-{b}")
        return self.subtract_columns(a, b)

    def subtract(self, a: int, b: int) -> int:
        """a - b of any signs; ends with the line `=result`."""
        if a >= 0 and b >= 0:
            return self.subtract_columns(a, b)
        if b < 0:
            self.lines.append(f"{a}+{-b}")
            return self.add(a, -b)
        self.lines.append(f"-({-a}+{b})")
        return self._negated(self.add_columns(-a, b))

    def multiply(self, a: int, b: int) -> int:
        """a * b of any signs; ends with the line `=result`."""
        if (a < 0) == (b < 0):
            if a < 0:
                self.lines.append(f"{-a}*{-b}")
            return self.multiply_columns(abs(a), abs(b))
        self.lines.append(f"-({abs(a)}*{abs(b)})")
        return self._negated(self.multiply_columns(abs(a), abs(b)))

    def divide(self, a: int, b: int) -> int:
        """a / b of any signs, without a remainder; ends with the line `=result`."""
        if (a < 0) == (b < 0):
            if a < 0:
                self.lines.append(f"{-a}/{-b}")
            return self.divide_columns(abs(a), abs(b))[0]
        self.lines.append(f"-({abs(a)}/{abs(b)})")
        return self._negated(self.divide_columns(abs(a), abs(b))[0])

    def _negated(self, value: int) -> int:
        if value:
            self.lines.append(f"=-{value}")
        return -value

    # -- non-negative integers, column by column ------------------------------------------------------------------

    def add_columns(self, a: int, b: int) -> int:
        self.operations.append(Operation("+", a, b))
        if a < 10 and b < 10:
            self.lines.append(f"{a}+{b}\n={a + b}")
            return a + b
        top, bottom = _aligned(a, b)
        self.lines.append(f"{top}+{bottom}")
        carry = 0
        for x, y in zip(reversed(top), reversed(bottom), strict=True):
            total = int(x) + int(y) + carry
            self.lines.append(f"{x}+{y}+{carry}={total:02d}")
            carry = total // 10
        self.lines.append(f"={a + b}")
        return a + b

    def subtract_columns(self, a: int, b: int) -> int:
        """Compares first: if a < b, b - a is worked out and negated."""
        self.operations.append(Operation("-", max(a, b), min(a, b)))
        if a < 10 and b < 10:
            self.lines.append(f"{a}-{b}\n={a - b}")
            return a - b
        top, bottom = _aligned(a, b)
        self.lines.append(f"{top}-{bottom}")
        order = self.compare_digits(top, bottom)
        if order == "=":
            self.lines.append("=0")
            return 0
        if order == "<":
            top, bottom = bottom, top
            self.lines.append(f"-({top}-{bottom})")
        self._difference_lines(top, bottom)
        self.lines.append(f"={a - b}")
        return a - b

    def multiply_columns(self, a: int, b: int) -> int:
        """One partial product for each digit of the shorter operand, each added to the sum so far."""
        self.operations.append(Operation("*", a, b))
        if len(str(b)) > len(str(a)):
            a, b = b, a
        if a < 10:
            self.lines.append(f"{a}*{b}\n={a * b}")
            return a * b
        if b >= 10:
            self.lines.append(f"{a}*{b}")
        total = 0
        for shift, digit in enumerate(reversed(str(b))):
            partial = self._times_digit(a, int(digit))
            zeros = "0" * shift
            if total and partial:
                total = self.add_columns(total, int(f"{partial}{zeros}"))
            elif partial and shift:
                total = int(f"{partial}{zeros}")
                self.lines.append(f"{partial}*1{zeros}\n={total}")
            elif partial:
                total = partial
        return total

    def divide_columns(self, a: int, b: int) -> tuple[int, int]:
        """Long division; ends with the line `=QrR`, quotient and remainder.

        Raises:
            ZeroDivisionError: b is 0.
        """
        self.operations.append(Operation("/", a, b))
        quotient, remainder = divmod(a, b)
        if b < 10:
            self._short_division(a, b)
        else:
            self._long_division(a, b)
        self.lines.append(f"={quotient}r{remainder}")
        return quotient, remainder

    def compare(self, a: int, b: int) -> str:
        """ "<", "=" or ">"; ends with the comparison itself."""
        self.operations.append(Operation("?", a, b))
        top, bottom = _aligned(a, b)
        self.lines.append(f"{top}?{bottom}")
        order = self.compare_digits(top, bottom)
        self.lines.append(f"{a}{order}{b}")
        return order

    def compare_digits(self, top: str, bottom: str) -> str:
        """Two aligned numbers from the left, up to the first digits that differ."""
        for x, y in zip(top, bottom, strict=True):
            if x != y:
                order = "<" if x < y else ">"
                self.lines.append(f"{x}{order}{y}")
                return order
            self.lines.append(f"{x}={y}")
        return "="

    def _times_digit(self, a: int, digit: int) -> int:
        self.lines.append(f"{a}*{digit}")
        if digit > 1:
            carry = 0
            for x in reversed(str(a)):
                product = int(x) * digit + carry
                self.lines.append(f"{x}*{digit}+{carry}={product:02d}")
                carry = product // 10
        self.lines.append(f"={a * digit}")
        return a * digit

    def _difference_lines(self, top: str, bottom: str) -> bool:
        """The columns of top - bottom; whether the last one had to borrow (then top < bottom)."""
        borrow = 0
        for x, y in zip(reversed(top), reversed(bottom), strict=True):
            difference = int(x) - int(y) - borrow
            lent = 1 if difference < 0 else 0
            self.lines.append(f"{lent}{x}-{y}-{borrow}={difference + 10 * lent}")
            borrow = lent
        return bool(borrow)

    def _short_division(self, a: int, b: int) -> None:
        remainder = 0
        for digit in str(a):
            part = 10 * remainder + int(digit)
            quotient, rest = divmod(part, b)
            self.lines.append(f"{remainder}{digit}={b}*{quotient}+{rest}")
            remainder = rest

    def _long_division(self, a: int, b: int) -> None:
        """For each quotient digit: a guess (`127:3`), its product, the rest, and whether the rest is below b."""
        digits = str(a)
        start = min(len(str(b)), len(digits)) - 1
        part = int(digits[:start] or 0)
        for digit in digits[start:]:
            part = 10 * part + int(digit)
            right = part // b
            guess = right
            if self.wrong_guess_share and self.random.random() < self.wrong_guess_share:
                guess = min(max(right + self.random.choice((-1, 1)), 0), 9)
            while not self._try_quotient(part, b, guess):
                guess += 1 if guess < right else -1
            part -= right * b

    def _try_quotient(self, part: int, b: int, guess: int) -> bool:
        self.lines.append(f"{part}:{guess}")
        rest = part
        if guess:
            product = self._times_digit(b, guess)
            top, bottom = _aligned(part, product)
            self.lines.append(f"{top}-{bottom}")
            if self._difference_lines(top, bottom):
                self.lines.append(f"{product}>{part}")
                return False
            rest = part - product
            self.lines.append(f"={rest}")
        top, bottom = _aligned(rest, b)
        self.lines.append(f"{top}?{bottom}")
        return self.compare_digits(top, bottom) == "<"


def _aligned(a: int, b: int) -> tuple[str, str]:
    """Both numbers with leading zeros to the same length."""
    width = max(len(str(a)), len(str(b)))
    return str(a).zfill(width), str(b).zfill(width)
