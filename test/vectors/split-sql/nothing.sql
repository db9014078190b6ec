;;
 ; /* nothing */ ; -- here
