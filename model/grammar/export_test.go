package grammar

// HoldUp lets before run first in each compilation.
func (c *Compiler) HoldUp(before func(Spec)) {
	compile := c.compileSpec
	c.compileSpec = func(v *Vocabulary, s Spec) (*Grammar, error) {
		before(s)
		return compile(v, s)
	}
}
