/* a /* nested ; */ still a comment; */
SELECT 1; /* b; */ -- c;
SELECT /* d /* e */ ; */ 2 -- trailing; comment
;
-- only a comment at the end;
