package lint

import (
	"go/ast"
	"go/token"
)

// undocumented lists the exported declarations of a file without a comment.
// Fields and interface methods are left to the reader's eye; a const or var
// group counts as documented by its own comment.
func undocumented(file *ast.File) []string {
	var missing []string
	if file.Name.Name == "main" {
		return nil
	}
	for _, decl := range file.Decls {
		switch d := decl.(type) {
		case *ast.FuncDecl:
			if d.Name.IsExported() && d.Doc == nil && receiverExported(d) {
				missing = append(missing, d.Name.Name)
			}
		case *ast.GenDecl:
			if d.Tok == token.IMPORT || d.Doc != nil {
				continue
			}
			for _, spec := range d.Specs {
				switch s := spec.(type) {
				case *ast.TypeSpec:
					if s.Name.IsExported() && s.Doc == nil {
						missing = append(missing, s.Name.Name)
					}
				case *ast.ValueSpec:
					for _, name := range s.Names {
						if name.IsExported() && s.Doc == nil && s.Comment == nil {
							missing = append(missing, name.Name)
						}
					}
				}
			}
		}
	}
	return missing
}

// receiverExported is false for methods of unexported types, which no reader of
// the package's documentation sees.
func receiverExported(d *ast.FuncDecl) bool {
	if d.Recv == nil || len(d.Recv.List) == 0 {
		return true
	}
	typ := d.Recv.List[0].Type
	if star, ok := typ.(*ast.StarExpr); ok {
		typ = star.X
	}
	if index, ok := typ.(*ast.IndexExpr); ok {
		typ = index.X
	}
	name, ok := typ.(*ast.Ident)
	return ok && name.IsExported()
}
