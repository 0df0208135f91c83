package chat
import ("testing";"strings";"time";"fmt")
func TestZ(t *testing.T){
 for _,s:=range []string{"{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}","{% macro f(g) %}{{ g(g) }}{% endmacro %}{{ f(f) }}","{% for a in range(99999) %}" + strings.Repeat("x", 1000) + "{% endfor %}","{{ " + strings.Repeat("(", 50000) + "1" + strings.Repeat(")", 50000) + " }}","{{ " + strings.Repeat("(", 120000) + "1" + strings.Repeat(")", 120000) + " }}", strings.Repeat("{% if x %}", 20000),strings.Repeat("{{", 100000),strings.Repeat("{{ x }}", 30000), "{{ "+strings.Repeat("not ",60000)+" x }}","{{ "+strings.Repeat("[",120000)+" x }}","{{ "+strings.Repeat("-",200000)+" x }}","{{ x"+strings.Repeat("[0]",60000)+" }}","{{ x"+strings.Repeat("|e",60000)+" }}","{{ 1"+strings.Repeat("+1",60000)+" }}"}{
  t0:=time.Now(); _,err:=render(s,Input{}); e:=fmt.Sprint(err); if len(e)>100{e=e[:100]}; fmt.Printf("%.30q %v %s\n",s,time.Since(t0),e)
 }
}
