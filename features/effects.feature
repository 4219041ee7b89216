Feature: A call that changes something is not done twice
  A read may be repeated. A signed transaction may, since its hash makes it one: it goes to all nodes that
  are well, or to one after the other with calls.send_to = "first". Anything else is sent once.

  Background:
    Given a primary geth
    And a backup provider

  Scenario: A signed transaction goes to every node that is well
    Given the proxy runs
    When a client sends a signed transaction
    Then the client gets the transaction's hash
    And the transaction waits for a block exactly once
    And geth has been asked for eth_sendRawTransaction 1 time
    And provider has been asked for eth_sendRawTransaction 1 time

  Scenario: A node hangs with a signed transaction that another takes
    Given the proxy runs
    When geth hangs
    And a client sends a signed transaction
    Then the client gets the transaction's hash
    And the transaction waits for a block exactly once

  Scenario: The answer to a signed transaction is lost
    Given the settings:
      | calls.send_to | "first" |
    And the proxy runs
    When geth loses its answers to eth_sendRawTransaction
    And a client sends a signed transaction
    Then the client gets the transaction's hash
    And the transaction waits for a block exactly once
    And provider has been asked for eth_sendRawTransaction 1 time

  Scenario: A signed transaction that was sent before is a success again
    Given the proxy runs
    When a client sends a signed transaction
    Then the client gets the transaction's hash
    When a client sends a signed transaction
    Then the client gets the transaction's hash
    And the transaction waits for a block exactly once

  Scenario: Where transactions go to one node, one that was sent before gets the error of a known one
    Given the settings:
      | calls.send_to | "first" |
    And the proxy runs
    When a client sends a signed transaction
    Then the client gets the transaction's hash
    When a client sends a signed transaction
    Then the client gets error -32000
    And the transaction waits for a block exactly once

  Scenario: The answer to a transaction that the node signs is lost
    Given the proxy runs
    When geth loses its answers to eth_sendTransaction
    And a client has a node sign and send a transaction
    Then the client gets error -32002 for the reason outcome_unknown
    And 1 transaction was made for the client
    And no node was asked twice for eth_sendTransaction

  Scenario: The node hangs with a transaction that it was to sign
    Given the settings:
      | calls.timeout | "2500ms" |
    And the proxy runs
    When geth answers 1000 ms late
    And a client has a node sign and send a transaction, and it has reached geth
    And geth hangs
    Then geth is found down
    When the client waits for the outcome
    Then the client gets error -32002 for the reason outcome_unknown
    And no node was asked twice for eth_sendTransaction

  Scenario: A node that refuses connections has seen nothing, so another may be asked
    Given the settings:
      | health.interval | "1h" |
    And the proxy runs
    When geth goes down
    And a client has a node sign and send a transaction
    Then the client gets a result
    And 1 transaction was made for the client
    And provider has been asked for eth_sendTransaction 1 time

  Scenario: Transactions wait for a node like all calls, and are sent once
    Given the proxy runs
    When geth goes down
    And provider goes down
    Then geth is found down
    And provider is found down
    When geth is well again
    And a client has a node sign and send a transaction
    Then the client gets a result
    And 1 transaction was made for the client
    And no node was asked twice for eth_sendTransaction
