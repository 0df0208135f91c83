"""Tests of compare.py, prompts.py and what needs no package of reference.py: python3 -m unittest discover -s scripts/reference."""
import copy
import tempfile
import unittest
from pathlib import Path

import compare
import prompts
import reference

SCORES = [
    {"id": "a", "prompt_tokens": 2, "ids": [5, 7, 9, 4], "logprobs": [-1.5, -0.5, -0.25], "argmax": [7, 9, 4], "gap": [0.5, 0.125, 2.0]},
    {"id": "b", "prompt_tokens": 1, "ids": [3, 8], "logprobs": [-2.0], "argmax": [8], "gap": [1.0]},
]


class Compare(unittest.TestCase):
    def changed(self, change) -> compare.Comparison:
        scores = copy.deepcopy(SCORES)
        change(scores)
        return compare.compare(SCORES, scores)

    def test_equal(self):
        c = compare.compare(SCORES, SCORES)
        self.assertTrue(c.within)
        self.assertEqual((c.prompts, c.tokens, c.decode_tokens, c.most, c.parted), (2, 4, 3, 0, 0))

    def test_mean_and_place_of_the_greatest(self):
        c = self.changed(lambda s: s[0]["logprobs"].__setitem__(1, -0.4375))
        self.assertEqual((c.mean, c.most, c.most_at), (0.0625 / 4, 0.0625, "a, token 2"))
        self.assertEqual((c.decode_mean, c.decode_most), (0.0625 / 3, 0.0625))
        self.assertTrue(c.within)

    def test_prompt_and_decode_are_told_apart(self):
        c = self.changed(lambda s: s[0]["logprobs"].__setitem__(0, -1.25))
        self.assertEqual((c.most, c.decode_most), (0.25, 0))
        self.assertFalse(c.within, "the mean is 0.0625")

    def test_greatest_is_bounded(self):
        many = [SCORES[1] | {"id": str(i)} for i in range(100)]
        scores = copy.deepcopy(many)
        scores[40]["logprobs"] = [-2.3]
        c = compare.compare(many, scores)
        self.assertLess(c.mean, compare.MEAN)
        self.assertEqual(c.beyond, 1)
        self.assertFalse(c.within)

    def test_other_argmax_only_where_the_reference_hesitates(self):
        c = self.changed(lambda s: s[0]["argmax"].__setitem__(1, 6))  # gap 0.125
        self.assertEqual((c.parted, c.parted_apart, c.widest), (1, 0, 0.125))
        self.assertTrue(c.within)
        c = self.changed(lambda s: s[0]["argmax"].__setitem__(2, 6))  # gap 2
        self.assertEqual((c.parted, c.parted_apart, c.widest), (1, 1, 2.0))
        self.assertFalse(c.within)

    def test_what_is_not_a_number_is_beyond(self):
        self.assertFalse(self.changed(lambda s: s[1].__setitem__("logprobs", [float("nan")])).within)
        self.assertFalse(compare.compare([], []).within)

    def test_other_sequences_are_refused(self):
        with self.assertRaisesRegex(ValueError, "sequence b: not the ids"):
            self.changed(lambda s: s[1].__setitem__("ids", [3, 9]))
        with self.assertRaisesRegex(ValueError, "1 sequences, the reference has 2"):
            self.changed(lambda s: s.pop())
        with self.assertRaises(ValueError):
            self.changed(lambda s: s[1].__setitem__("logprobs", []))

    def test_files(self):
        with tempfile.TemporaryDirectory() as directory:
            path = Path(directory) / "x.jsonl"
            compare.write(path, SCORES)
            self.assertEqual(compare.read(path), SCORES)
            self.assertEqual(list(Path(directory).iterdir()), [path])


class Prompts(unittest.TestCase):
    def test_random_ids(self):
        lines = prompts.of_random_ids(1000, 220)
        self.assertEqual(lines, prompts.of_random_ids(1000, 220))
        lengths = [len(line["prompt"]) for line in lines]
        self.assertEqual((len(lines), min(lengths), max(lengths)), (220, 1, prompts.LONG))
        self.assertTrue(all(0 <= i < 1000 for line in lines for i in line["prompt"]))
        hidden = [line for line in lines if line["hidden"]]
        self.assertEqual(len(hidden), prompts.HIDDEN)
        self.assertTrue(all(len(line["prompt"]) >= 100 for line in hidden))


class Results(unittest.TestCase):
    def test_another_binary_or_flag(self):
        with tempfile.TemporaryDirectory() as directory:
            binary = Path(directory) / "pagoda"
            binary.write_bytes(b"one")
            first = reference.results_of(binary, "")
            self.assertEqual(first, reference.results_of(binary, ""))
            self.assertNotEqual(first, reference.results_of(binary, "--block-size 64"))
            binary.write_bytes(b"two")
            self.assertNotEqual(first, reference.results_of(binary, ""))


if __name__ == "__main__":
    unittest.main()
