UPDATE orders SET state = 'paid' WHERE id = 1;
