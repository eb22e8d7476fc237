"""What is wrong with data sets as configs name them, found before a training reads them."""
