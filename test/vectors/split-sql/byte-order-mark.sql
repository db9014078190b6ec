CREATE TABLE a (id int);
CREATE TABLE "été;" (id int)