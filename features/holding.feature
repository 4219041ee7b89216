Feature: When no node serves, calls wait in order
  The queue is bounded in count and in time. A call that cannot wait any longer is told why.

  Scenario: All nodes are down, then one is back
    Given a primary geth
    And a backup provider
    And the proxy runs
    When geth goes down
    And provider goes down
    Then geth is found down
    And provider is found down
    When 12 calls come, one after the other
    And provider is well again
    Then every call that waited is answered by provider

  Scenario: Calls leave the queue in the order of their arrival
    Given a primary geth with nothing but a WebSocket
    And a backup provider with nothing but a WebSocket
    And the proxy runs
    When geth goes down
    And provider goes down
    Then geth is found down
    And provider is found down
    When 12 calls come, one after the other
    And provider is well again
    Then every call that waited is answered by provider, in the order of their arrival

  Scenario: Calls of a WebSocket leave the queue in the order in which they were sent
    Given a primary geth with nothing but a WebSocket
    And a backup provider with nothing but a WebSocket
    And the proxy runs
    And alice has a WebSocket
    When geth goes down
    And provider goes down
    Then geth is found down
    And provider is found down
    When alice sends 30 calls, and they wait
    And provider is well again
    Then the calls of alice reach provider in the order in which they were sent
    And every call of alice is answered with a result

  Scenario: Calls that come before any node was ever up are held as well
    Given a primary geth
    And the proxy runs, and no node was ever up
    When 3 calls come, one after the other
    And geth is well again
    Then every call that waited is answered by geth

  @testnet
  Scenario: The hold time is over
    Given a primary geth
    And the settings:
      | calls.hold | "600ms" |
    And the proxy runs
    When geth goes down
    Then geth is found down
    When a client calls eth_gasPrice
    Then the client gets HTTP status 503
    And the client gets error -32002 for the reason no_node
    And the client is told to come back later
    And the answer took from 550 to 4000 ms
    When geth is well again
    Then calls go to geth

  Scenario: The queue is full
    Given a primary geth
    And the settings:
      | calls.max_held | 2 |
    And the proxy runs
    When geth goes down
    Then geth is found down
    When 2 calls come, one after the other
    And a client calls eth_gasPrice
    Then the client gets HTTP status 503
    And the client gets error -32005 for the reason max_held
    And 2 calls are held
    When geth is well again
    Then every call that waited is answered by geth

  Scenario: The queue is full of bytes
    Given a primary geth
    And the settings:
      | calls.max_body       | "1KiB" |
      | calls.max_held_bytes | "1KiB" |
    And the proxy runs
    When geth goes down
    Then geth is found down
    When 2 calls come, one after the other
    And a client sends a body of 1000 bytes
    Then the client gets HTTP status 503
    And the client gets error -32005 for the reason max_held_bytes
    When geth is well again
    Then every call that waited is answered by geth

  Scenario: The whole call has a deadline, whatever its nodes do
    Given a primary geth
    And the settings:
      | calls.timeout   | "700ms" |
      | health.interval | "30s"   |
      | health.timeout  | "30s"   |
    And the proxy runs
    When geth hangs
    And a client calls eth_gasPrice
    Then the client gets HTTP status 504
    And the client gets error -32002 for the reason deadline
    And the answer took from 650 to 4000 ms
    When geth is well again
    Then calls go to geth
