SELECT 'a;b', 'it''s; fine', E'back\\slash\'s; too', U&'d\0061t;a', N'n;', B'01', X'1F', "col;umn", "a""b;c", U&"d\0061;" FROM t;
SELECT E'first'
  'second\'; still inside';
SELECT 'no\';
SELECT a$b$c, $1, $tag1$ ; $tag$ ; $tag1$, x::text #>> '{a;b}', y->>'z';
