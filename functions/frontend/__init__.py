"""The page: what a browser sees of Huginn, and the relay from the page's origin to the backend."""
